hosts web {
  host "localhost" { connection = local }
}

role site(name: string, port: int, wait: duration = 5s, extra: strin = "") {
  directory "/srv/{{ name }}"
}

play "web" on hosts.web {
  site { name = ["a"]  port = "80" }
  site { name = "b"  port = 80  wait = 5 }
  site { name = "c" }
}
