import "roles.fp"

hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  site { name = "a" }
}
