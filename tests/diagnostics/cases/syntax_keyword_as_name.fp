hosts web {
  host "localhost" { connection = local }
}

vars { in = 3 }

play "web" on hosts.web {
  directory "/srv/a"
}
