hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  link "/srv/a" { to = "/srv/b"  force = yes }
}
