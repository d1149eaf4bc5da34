hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/a" { notify = "reload apach" }
  handler "reload apache" {
    directory "/srv/b"
  }
}
