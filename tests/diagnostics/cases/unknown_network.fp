hosts web {
  host "localhost" { connection = local }
}

network "web-lan" { subnet = 10.0.0.0/24  pool = 10.0.0.10 - 10.0.0.20 }

nodes web { count = 1  on = hosts.web  network = "web-lam"  name = "web{{ node.index }}" }

play "web" on hosts.web {
  directory "/srv/a"
}
