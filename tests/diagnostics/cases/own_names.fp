hosts web {
  host "localhost" { connection = local }
}

vars { hosts = 1 }

hosts all {
  host "x"
}

play "web" on hosts.web {
  node = 3
  directory "/srv/a"
}
