hosts web {
  host "localhost" { connection = local }
}

vars { motto = all goes well }

play "web" on hosts.web {
  directory "/srv/a"
}
