hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  file "/srv/a" { content = "C:\data" }
}
