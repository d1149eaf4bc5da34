hosts web {
  host "localhost" { connection = local }
}

nodes web {
  network = "lan"
}

network "lan" {
  subnet  = 10.0.0.0/24
  gateway = 10.0.0.1
  pool    = 10.0.0.10 - 10.0.0.12
}

play "web" on hosts.web {
  directory "/srv/a"
}
