hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory /srv/a { mode = 0755 }
  link "/srv/b" { to = ../a }
  link "/srv/c" { to = web-1.example.org/x }
}
