hosts docker { host "h1" { address = 10.0.0.1 } }
nodes web { count = 2  on = hosts.docker  name = "web{{ node.index }}" }

rollout on nodes.web { }
rollout "no target" { change { command ["true"] } }
rollout "empty" on nodes.web { }
rollout "no reload" on nodes.web { config "/data/conf" { from = "templates" } }
rollout "hosts" on hosts.docker { change { command ["true"] } }
rollout "words" on nodes.web as x {
  budget = -1
  keep = 1
  settle = 5
  within = 1s
  bugdet = 2
  drain = "lb"
  config { from = "templates" }
  config "/data/a" { inside = "/conf" }
  config "/data/b" { from = "templates"  form = "x"  file "/x" { content = "" } }
  drain { backend node.name { haproxy = "/run/haproxy.sock"  pool = "web" } }
  drain on hosts.docker { }
  change { handler "x" { command ["true"] } }
  change { command ["false"] }
  reload "title" { command ["true"] }
  access_log { worse = 1% }
  access_log "logs/*.log" { better = 1% }
  healty { command ["true"] }
  command ["true"]
  for x in [1] { command ["true"] }
}
rollout "logs" on nodes.web {
  change { command ["true"] }
  access_log "logs/{{ nod.name }}/*.log" { worse = 5  at_least = 0 }
}
