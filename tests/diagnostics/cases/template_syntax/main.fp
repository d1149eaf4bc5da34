hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  template "/srv/a" { source = "site.conf" }
  template "/srv/b" { source = "loop.conf" }
  template "/srv/c" { source = "filter.conf" }
}
