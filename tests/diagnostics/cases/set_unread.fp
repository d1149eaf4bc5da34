#: --set web_node=5
hosts web {
  host "web1"
}
hosts db {
  host "db1"
}

vars { web_nodes = 3 }

play "web" on hosts.web {
  directory "/srv/{{ web_nodes }}" { tags = ["config", "files"] }
  when web_nodes > 5 {
    directory "/srv/many" { tags = "many" }
  }
}
