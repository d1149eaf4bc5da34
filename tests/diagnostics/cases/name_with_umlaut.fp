hosts web {
  host "localhost" { connection = local }
}

vars { größe = 3 }

play "web" on hosts.web {
  directory "/srv/a"
}
