hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/a" { mоde = 0755 }
  directory "/srv/b" { größe = 0755 }
}
