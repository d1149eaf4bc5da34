hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  container "web" {
    image = "web:1"
    command = "sleep 100000"
  }
  container "web2" {
    image = "web:1"
    entrypoint = "/bin/sleep 1000"
  }
}
