hosts web {
  host "localhost" { connection = local }
}

vars { web_nodes = 3 }

play "web" on hosts.web {
  directory "/srv/{{ web_node }}"
}
