#: --set 3x=1
hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/a"
}
