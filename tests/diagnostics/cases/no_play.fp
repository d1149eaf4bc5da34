hosts web {
  host "localhost" { connection = local }
}

vars { a = 1 }
