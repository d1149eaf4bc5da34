hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directry "/srv/a" { mode = 0755 }
}
