hosts web {
  host "localhost" { connection = local }
}

vars { a = 1 if true }

play "web" on hosts.web {
  directory "/srv/a"
}
