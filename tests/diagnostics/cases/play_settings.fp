hosts web {
  host "localhost" { connection = local }
}

role restart() {
  tags = "restart"
  command ["touch", "/srv/restarted"]
}

play "web" on hosts.web {
  batch          = 1
  serial         = 1
  when           = false
  tags           = "never"
  notify         = "reload"
  timeout        = 5s
  ignore_failure = true
  become         = true
  on             = "web2"
  for name in ["a"] {
    when = true
  }
  restart { }
}
