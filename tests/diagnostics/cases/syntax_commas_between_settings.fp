hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/a" { mode = 0755, owner = "root" }
}
