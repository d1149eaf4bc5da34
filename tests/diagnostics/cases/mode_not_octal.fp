hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/a" { mode = 0789 }
  directory "/srv/b" { mode = 0o755 }
  directory "/srv/c" { mode = 077777 }
}
