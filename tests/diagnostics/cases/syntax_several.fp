hosts web {
  host "localhost" { connection = local }
}

vars {
  name: "web"
  size == 3
}

play "web" on hosts.web {
  - directory
  directory "/srv/a" { mode = 0755; owner = 'root' }
  file "/srv/b" {
    content = ${name}
  }
}
