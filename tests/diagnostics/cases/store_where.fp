hosts web {
  host "localhost" { connection = local }
}

store { prefix = "/fanli/shop" }

play "web" on hosts.web {
  directory "/srv/a"
}
