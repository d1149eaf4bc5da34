hosts web {
  host "localhost" { connection = local }
}

nodes web { count = 1  on = hosts.web  name = "web{{ node.index }}" }

play "web" on nodes.wb {
  directory "/srv/a"
}
