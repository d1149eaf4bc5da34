#: --env prod
vars { web_nodes = 3 }

hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/{{ web_nodes }}" { mode = web_mode }
}
