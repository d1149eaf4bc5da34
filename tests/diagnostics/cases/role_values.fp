hosts web {
  host "localhost" { connection = local }
}

vars {
  port  = "eighty"
  ready = "yes"
}

role site(name: string = 5, port: int, mode: mode = 755, ready: bool = true, note: string = null) {
  file "/srv/{{ name }}" { content = "Listen {{ port }} {{ note }}\n" }
}

play "web" on hosts.web {
  site { }
  site { name = "b"  port = 80  ready = true  mode = 0644 }
  site { name = "c"  port = 80  ready = 1  mode = 0644 }
}
