hosts web {
  host "localhost" { connection = local }
}

vars { folder = "/srv" }

play "web" on hosts.web {
  directory "${folder}/a" { mode = 0755 }
}
