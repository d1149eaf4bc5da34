hosts web {
  host "localhost" { connection = local }
}

vars { name = "a" }

play "web" on hosts.web {
  when name is defind {
    directory "/srv/a"
  }
}
