"""What Kelpie is compared with, written anew from descriptions; the programs run in processes of their own."""
