hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  when 1 = 1 {
    directory "/srv/a"
  }
  name = "a" if 2 = 2 else "b"
}
