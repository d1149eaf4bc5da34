hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  file "/srv/a { content = "x" }
  file "/srv/b" { content = "y }
}
