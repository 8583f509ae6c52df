#!/bin/sh
# Makes clip.mp4, next to this script: the clip that the
# simulator serves as every video.
#
# Needs ffmpeg (with libx264 and drawtext), espeak-ng, and DejaVu Sans
# (Debian: fonts-dejavu-core). Runs from any folder. FONT_DIR may name another
# folder that holds the DejaVuSans*.ttf files.
#
# SPDX-License-Identifier: MIT OR Apache-2.0
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
fonts=${FONT_DIR:-/usr/share/fonts/truetype/dejavu}
seconds=8
fps=24

for tool in ffmpeg espeak-ng; do
    command -v "$tool" >/dev/null || { echo "$0: $tool is needed" >&2; exit 1; }
done
for font in DejaVuSans.ttf DejaVuSans-Bold.ttf DejaVuSansMono.ttf; do
    [ -r "$fonts/$font" ] || { echo "$0: $fonts/$font is needed" >&2; exit 1; }
done

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# Fonts are linked into the temporary folder so that no path needs escaping in
# the filter below.
for font in DejaVuSans.ttf DejaVuSans-Bold.ttf DejaVuSansMono.ttf; do
    ln -s "$(CDPATH= cd -- "$fonts" && pwd)/$font" "$tmp/$font"
done
cd "$tmp"

espeak-ng -v en-us -s 150 -g 2 -w voice.wav \
    "Simulator. This is a test clip. No video was generated."

# The progress bar is 1040 pixels wide: the fill slides in from the left over
# the track, whose edges cut it off.
cat > filter.txt <<FILTER
color=c=0x3a4a63:s=1040x28:r=$fps:d=$seconds,format=rgb24[track];
color=c=0xffc94d:s=1040x28:r=$fps:d=$seconds,format=rgb24[fill];
[track][fill]overlay=x='-1040+1040*(t+1/$fps)/$seconds':y=0:format=rgb[bar];
color=c=0x17202e:s=1280x720:r=$fps:d=$seconds,format=rgb24,
drawbox=x=0:y=0:w=1280:h=16:color=0xffc94d:t=fill,
drawbox=x=0:y=704:w=1280:h=16:color=0xffc94d:t=fill,
drawtext=fontfile=DejaVuSans-Bold.ttf:text='SIMULATOR':fontsize=150:fontcolor=0xffc94d:x=(w-text_w)/2:y=150,
drawtext=fontfile=DejaVuSans-Bold.ttf:text='test clip':fontsize=54:fontcolor=white:x=(w-text_w)/2:y=340,
drawtext=fontfile=DejaVuSans.ttf:text='no video was generated, nothing was charged':fontsize=42:fontcolor=white:x=(w-text_w)/2:y=425,
drawtext=fontfile=DejaVuSansMono.ttf:text='%{eif\:floor(t)\:d}.%{eif\:mod(floor(t*10+0.001)\,10)\:d} s of $seconds s':fontsize=36:fontcolor=0xc5d0e0:x=(w-text_w)/2:y=605[card];
[card][bar]overlay=x=120:y=555:format=rgb,
scale=out_color_matrix=bt709:out_range=tv,format=yuv420p[v];
[0:a]aresample=48000,aformat=channel_layouts=mono,adelay=500,apad=whole_dur=$seconds,atrim=end=$seconds[a]
FILTER

# One thread, no dates, no encoder versions: the same tools give the same bytes.
ffmpeg -nostdin -hide_banner -loglevel error -y \
    -fflags +bitexact -i voice.wav \
    -filter_complex_threads 1 -filter_complex "$(cat filter.txt)" \
    -map '[v]' -map '[a]' \
    -c:v libx264 -profile:v main -preset veryslow -level 3.1 -refs 2 -crf 28 \
    -bf 0 -g $((fps * 4)) -threads 1 -pix_fmt yuv420p \
    -colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv \
    -bsf:v filter_units=remove_types=6 \
    -c:a aac -b:a 48k \
    -map_metadata -1 -map_chapters -1 \
    -fflags +bitexact -flags:v +bitexact -flags:a +bitexact \
    -movflags +faststart clip.mp4

cp clip.mp4 "$here/clip.mp4"
