hosts docker { host "h1" { address = 10.0.0.1 }  host "h2" { address = 10.0.0.2 } }
nodes web { count = 2  on = hosts.docker  name = "web{{ node.index }}" }
vars { late = facts.memory }

rollout "undefined" on nodes.web {
  config "/data/conf/{{ node.name }}" { from = "templates/apache" }
  reload { command ["true"] }
}
rollout "missing" on nodes.web {
  config "/data/conf" { from = "templates/nginx" }
  config 5 { from = 6 }
  config "relative" { from = "templates/apache" }
  reload { command ["true"] }
}
rollout "drain" on nodes.web {
  change { command ["true"] }
  drain on nodes.web { command ["true"] }
}
rollout "drain of tasks" on nodes.web {
  change { command ["true"] }
  drain on hosts.docker { command ["true"] }
}
