hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  file "/srv/motd" { content = "x" } as motd
}
