hosts web {
  host "localhost" { connection = local }
}

vars { sizes = { small = 1  big = 2  small = 3 } }

play "web" on hosts.web {
  directory "/srv/a"
}
