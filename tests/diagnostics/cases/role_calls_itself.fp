hosts web {
  host "localhost" { connection = local }
}

role a() {
  b { }
}

role b() {
  when true {
    a { }
  }
}

play "web" on hosts.web {
  a { }
}
