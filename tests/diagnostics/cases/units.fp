hosts web {
  host "localhost" { connection = local }
}

vars {
  wait = 30sec
  size = 512mb
  rate = 1.5
  late = 1m30m
  long = 99999999999999999999
}

play "web" on hosts.web {
  directory "/srv/a" { timeout = 30 }
  directory "/srv/b" { timeout = 10MiB }
}
