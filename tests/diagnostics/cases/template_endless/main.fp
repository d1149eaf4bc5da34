hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  template "/srv/a" { source = "loop.conf" }
}
