hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  file "/srv/a" { source = "files/motd" }
  file "/srv/b" { source = "main.pf" }
}
