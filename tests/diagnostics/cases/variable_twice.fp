hosts web {
  host "localhost" { connection = local }
}

vars {
  a = 1
  a = 2
}

vars { a = 3 }

play "web" on hosts.web {
  directory "/srv/a"
}
