hosts web {
  host "localhost" { connection = local }
}

vars { web-nodes = 3 }

play "web" on hosts.web {
  directory "/srv/a"
}
