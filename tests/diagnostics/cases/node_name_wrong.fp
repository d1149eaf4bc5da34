hosts web {
  host "localhost" { connection = local }
}

network "lan" {
  subnet  = 10.0.0.0/24
  gateway = 10.0.0.1
  pool    = 10.0.0.10 - 10.0.0.12
}

nodes web {
  on      = hosts.web
  name    = "web {{ node.index }}"
  network = "lan"
  count = 1
}

play "web" on hosts.web {
  directory "/srv/a"
}
