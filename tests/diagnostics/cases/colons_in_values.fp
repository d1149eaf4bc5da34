hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  x = lambda y: y
  y = { "a": 1 }
}
