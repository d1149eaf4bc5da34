hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  import "x.fp"
  role a() {
  }
}
