hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  file "/srv/a" { source = "data" }
  image "x:1" { context = "main.fp" }
}
