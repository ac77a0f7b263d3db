# Compares the folders left and right. What is compared is hostile: unpacking it may fill the disk or never end, which the limits
# of the sandbox see to. Scratch files lie in the build directory, where they count.
seconds=$1 text=$2 html=$3
: > difference.txt
: > difference.html
mkdir -p left right scratch
TMPDIR=$PWD/scratch
export TMPDIR
(cd left && find . -type f -printf '%P\n' | LC_ALL=C sort) | while read -r name; do
	if [ -f "right/$name" ]; then cmp "left/$name" "right/$name" || :; else echo "only left: $name"; fi
done
(cd right && find . -type f -printf '%P\n' | LC_ALL=C sort) | while read -r name; do
	[ -f "left/$name" ] || echo "only right: $name"
done
code=0
diffoscope --no-progress --timeout "$seconds" --exclude-directory-metadata=yes \
	--max-text-report-size "$text" --max-report-size "$html" --max-page-size "$html" \
	--text difference.txt --html difference.html left right || code=$?
# 1 says that they differ.
[ "$code" -le 1 ] || { echo "diffoscope ended with exit code $code"; exit "$code"; }
