hosts docker {
  host "localhost" { connection = local }
}
