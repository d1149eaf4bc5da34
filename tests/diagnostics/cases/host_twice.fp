hosts web {
  host "web1" { address = 10.0.0.1 }
  host "web1" { address = 10.0.0.2 }
}

hosts db {
  host "web1" { port = 2222 }
}

play "web" on hosts.web {
  directory "/srv/a"
}
