hosts web {
  host "localhost" { connection = local }
}

vars { apache = { workers = 3 } }

play "web" on hosts.web {
  template "/srv/a" { source = "site.conf" }
}
