hosts web {
  host "localhost" { connection = local }
}

vars { a = 3 }

play "web" on hosts.web {
  when 1 < a < 5 {
    directory "/srv/a"
  }
}
